"""The way of many videos through the model and the measures: lists, what is kept, what is counted."""
