"""What is measured of a model, each a result that saves itself."""
