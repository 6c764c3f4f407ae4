"""What the leader does beside scaling: returns lost jobs, carries revocations on, looks at the server."""
