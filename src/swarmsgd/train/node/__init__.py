"""One node of a real run: the hook after a step, the exchange thread, a model on its device."""
