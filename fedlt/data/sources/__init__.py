"""Data sets in files of the user: folders, lists, tables, arrays, Hugging Face, features."""
