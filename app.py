"""The Space's door; ``prophy app`` on one's own machine."""

from prophy.ui.main import main

if __name__ == "__main__":
    main()
