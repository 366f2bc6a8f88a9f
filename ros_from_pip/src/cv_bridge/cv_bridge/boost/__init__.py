"""What is a C++ extension in the original."""
