"""An architecture that the manifest's `[architecture]` table describes, validated against the model.

table.py: builds the `Family`
modules.py: checks that its modules are in the model
input_groups.py: checks by forward passes that linears share their inputs as the table says
messages.py: messages about what does not fit
"""
