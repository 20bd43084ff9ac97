"""What the manifest's `[architecture]` table says in place of what is derived from the model.

modules.py: checks that its class and modules exist
apply.py: its input groups and parts
messages.py: messages about what does not fit
"""
