"""The eight steps of the data pipeline, one file each; `order.py` puts them in order. Nothing in here knows who runs them."""
