"""The messages of the vendor's servers: .proto files, and the descriptors that `serving.messages` reads."""
