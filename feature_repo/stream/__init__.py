"""The live part: from accepted events to online rows, in the service or in workers beside a broker."""
