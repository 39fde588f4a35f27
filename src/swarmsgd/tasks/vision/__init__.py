"""Image classification: data sets, models, and the task that is made of both."""
