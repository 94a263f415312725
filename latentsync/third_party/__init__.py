"""Networks of others, written anew from their papers, forward only: each names its origin and licence."""
