"""The policy inside a flight stack: adapters, their build files and what each stack's conventions are."""
