package e2e

import "flag"

// long asks the tests and benchmarks that are bounded by default for all of it.
var long = flag.Bool("long", false, "run what takes minutes in full: more kills, more seeds, a million records")
