package e2e

import (
	"flag"

	"latchkey.dev/services/internal/trial"
)

var long = trial.Long

var seed = flag.Uint64("seed", 0, "what tests choose at random; 0 is something else each time, and is printed")

// times is how often something is done: few times in every run, many in a long one.
func times(few, many int) int { return trial.Times(few, many) }
