"""The app: the pipeline behind a page in a browser and behind an address that programs call."""
