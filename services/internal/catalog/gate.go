package catalog

var (
	app = MustGrant("App")
	web = MustGrant("Web")
)

// Effective returns what counts of the grants that the layers gave: first what
// they imply is added, then Gate removes what does not count. The permissions
// service calls it whenever it computes somebody's set, and nothing else of the
// suite applies Implied or Gate: all others receive sets that are effective.
func Effective(set Set) Set { return Gate(Implied(set)) }

// Implied returns set with what its keys include: a holder of Web holds App. So
// denying App to a holder of Web changes nothing; Web has to be denied.
func Implied(set Set) Set {
	if set.Has(web) {
		set.Add(app)
	}
	return set
}

// Gate returns set without the keys that do not count: those whose chain of
// required keys is not wholly in the set, those for which an add-on feature,
// their own or one of the chain's, is not in the set, and bits that name nothing.
// Settings and features stay. The plan's features must be in the set.
func Gate(set Set) Set { return data.gate(set) }

func (t *table) gate(set Set) Set {
	set = set.Without(set.Without(t.known))
	out := set
	for _, b := range t.gated {
		if !set.Contains(t.needs[b]) {
			out.Remove(b)
		}
	}
	return out
}

// Needs returns what must be in a set beside b for b to count: the keys above it
// and their features. With it a refusal can say which of them was missing.
func Needs(b Bit) Set { return data.needs[b] }
