"""Pictures of what others have computed."""
