"""The data as models get them: events on a device, plans of batches, the catalogue of items."""
