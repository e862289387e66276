"""The documentation site that `make docs` builds: its generated pages, and the hook of mkdocs."""
