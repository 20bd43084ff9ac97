"""A config as transformers reads it: built, compared, and watched for which keys the code reads."""
