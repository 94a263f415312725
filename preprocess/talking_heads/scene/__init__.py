"""What is around the head: clothes, glasses, rooms, light, camera, and how people move."""
