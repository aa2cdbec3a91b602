"""Films that were watched as they ran: what was scored and said, beside what is true of them."""
