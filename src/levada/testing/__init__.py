"""What a project needs to test its own use of Levada."""
