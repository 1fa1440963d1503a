"""What tests need around the code under test: real servers, faults on the wire, processes that die with pytest."""
