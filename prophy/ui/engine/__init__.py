"""What runs behind the page: models, devices, jobs, files."""
