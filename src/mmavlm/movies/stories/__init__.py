"""Films as stories: told over three levels, logged, asked about, drawn and exported."""
