package e2e

import "flag"

// long asks the tests and benchmarks that are bounded by default for all of it.
var long = flag.Bool("long", false, "run what takes minutes in full: more kills, more seeds, a million records")

var seed = flag.Uint64("seed", 0, "what tests choose at random; 0 is something else each time, and is printed")

// times is how often something is done: few times in every run, many in a long one.
func times(few, many int) int {
	if *long {
		return many
	}
	return few
}
