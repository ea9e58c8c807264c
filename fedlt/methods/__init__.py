"""Names of methods looked up, two plugins as one, a plugin with a teacher."""
