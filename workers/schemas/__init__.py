"""The schemas that ship with Fusewatch: of the config, of an alert, and of the webhooks.

`make reference` writes the files, made of the types. May import: nothing of ours.
"""
