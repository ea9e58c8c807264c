"""Methods: look-up by name, composition of two plugins, plugins with a teacher."""
