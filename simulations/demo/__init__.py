"""The embedded demo: a small base language model, the public text it was made from, its maker."""
