"""The dashboard: a read-only server and a small front end without a build step."""
