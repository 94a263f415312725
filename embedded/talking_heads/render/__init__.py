"""Pictures of meshes and strands on the processor."""
