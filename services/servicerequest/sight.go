package servicerequest

import (
	"slices"

	pb "latchkey.dev/gen/go/latchkey/servicerequest/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/customfield"
	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// circle is a set of service requests that exist for the same callers, such as those
// assigned to one user. It is the first part of the keys of the indexes "sight", "label",
// "custom" and "custom_value", and so never changes its form.
type circle string

func assignedTo(user string) circle        { return circle("assigned " + user) }
func writtenBy(user string) circle         { return circle("written " + user) }
func openAt(property string) circle        { return circle("open " + property) }
func ownedAt(property string) circle       { return circle("owned " + property) }
func unownedAt(property string) circle     { return circle("unowned " + property) }
func ownedBy(user, property string) circle { return circle("owned " + property + " by " + user) }

// circles returns the circles that a service request is in.
func circles(r *pb.ServiceRequest) []circle {
	var in []circle
	switch r.GetState() {
	case documented, recommended, denied:
		if r.GetAuthorId() != "" {
			in = append(in, writtenBy(r.GetAuthorId()))
		}
	}
	if r.GetState() != drafted && r.GetAssigneeId() != "" {
		in = append(in, assignedTo(r.GetAssigneeId()))
	}
	if claimable(r) {
		in = append(in, openAt(r.GetPropertyId()))
	}
	switch {
	case r.GetState() == documented:
	case r.GetOwnerId() == "":
		in = append(in, unownedAt(r.GetPropertyId()))
	default:
		in = append(in, ownedAt(r.GetPropertyId()), ownedBy(r.GetOwnerId(), r.GetPropertyId()))
	}
	return in
}

// claimable tells whether the request waits for one of the team to claim it.
func claimable(r *pb.ServiceRequest) bool {
	return r.GetState() == requested && r.GetOpenToTeam() && r.GetAssigneeId() == ""
}

// sight is which service requests exist for a caller. It is made in one place, from
// his grants and teams, and answers for one request as for the ranges of a list, so
// that the two cannot differ.
type sight struct {
	circles []circle
	but     string // an owner whose requests he sees by no circle of a property
	deleted bool   // whether deleted ones exist for him
}

// sightOf returns what the caller sees, as one of the teams of the properties.
func sightOf(p *authz.Principal, properties ...string) sight {
	s := sight{deleted: p.Has("ServiceRequests:Delete")}
	me, others := p.Has("View:OwnedBy:Me"), p.Has("View:OwnedBy:Others")
	if p.Has("ServiceRequests:View:Assigned") {
		s.circles = append(s.circles, assignedTo(p.ID))
	}
	if me {
		s.circles = append(s.circles, writtenBy(p.ID))
	} else {
		s.but = p.ID
	}
	claims, views, unowned := p.Has("ServiceRequests:Claim"), p.Has("ServiceRequests:View:Property"), p.Has("View:OwnedBy:Nobody")
	for _, property := range properties {
		if claims {
			s.circles = append(s.circles, openAt(property))
		}
		switch {
		case !views:
			continue
		case others:
			s.circles = append(s.circles, ownedAt(property))
		case me:
			s.circles = append(s.circles, ownedBy(p.ID, property))
		}
		if unowned {
			s.circles = append(s.circles, unownedAt(property))
		}
	}
	return s
}

// sees tells whether the request exists for the caller.
func (s sight) sees(r *pb.ServiceRequest) bool {
	if r.GetDeleteTime() != nil && !s.deleted {
		return false
	}
	return slices.ContainsFunc(circles(r), func(c circle) bool {
		hidden := s.but != "" && r.GetOwnerId() == s.but && c == ownedAt(r.GetPropertyId())
		return !hidden && slices.Contains(s.circles, c)
	})
}

// sightKeys are the keys of a request in the index "sight".
func sightKeys(r *pb.ServiceRequest) []store.Key {
	var keys []store.Key
	for _, c := range circles(r) {
		keys = append(keys, store.Key{c, viewOf(r), r.GetCreateTime().AsTime()})
	}
	return keys
}

// labelKeys are the keys of a request in the index "label": those of the index "sight",
// for each of its labels.
func labelKeys(r *pb.ServiceRequest) []store.Key { return keysFor(r, labelsOf(r)) }

// customKeys are the keys of a request in the index "custom": those of the index "sight",
// for each field in which it has a custom value.
func customKeys(r *pb.ServiceRequest) []store.Key {
	return keysFor(r, customfield.Fields(r.GetCustomValues()))
}

// valueKeys are the keys of a request in the index "custom_value": in each circle by its field,
// the view and the value, and then as in the index "sight".
func valueKeys(r *pb.ServiceRequest) (keys []store.Key) {
	if len(r.GetCustomValues()) == 0 {
		return nil
	}
	for _, c := range circles(r) {
		for _, v := range r.GetCustomValues() {
			for _, part := range customfield.Parts(v) {
				keys = append(keys, store.Key{c, v.GetCustomFieldId(), viewOf(r), part, r.GetCreateTime().AsTime()})
			}
		}
	}
	return keys
}

// keysFor are the keys of the index "sight", for each of the terms.
func keysFor(r *pb.ServiceRequest, terms []string) []store.Key {
	if len(terms) == 0 {
		return nil
	}
	var keys []store.Key
	for _, c := range circles(r) {
		for _, term := range terms {
			keys = append(keys, store.Key{c, term, viewOf(r), r.GetCreateTime().AsTime()})
		}
	}
	return keys
}

// keeps tells whether a request of the ranges exists for the caller.
func (s sight) keeps(r *pb.ServiceRequest) bool {
	return s.but == "" || r.GetOwnerId() != s.but || s.sees(r)
}

// viewOf returns the one view that holds the request.
func viewOf(r *pb.ServiceRequest) pb.ServiceRequestView {
	if r.GetDeleteTime() != nil {
		return pb.ServiceRequestView_SERVICE_REQUEST_VIEW_DELETED
	}
	switch r.GetState() {
	case accepted:
		return pb.ServiceRequestView_SERVICE_REQUEST_VIEW_OPEN
	case completed:
		return pb.ServiceRequestView_SERVICE_REQUEST_VIEW_COMPLETE
	case onHold:
		return pb.ServiceRequestView_SERVICE_REQUEST_VIEW_ON_HOLD
	case archived:
		return pb.ServiceRequestView_SERVICE_REQUEST_VIEW_ARCHIVE
	}
	return pb.ServiceRequestView_SERVICE_REQUEST_VIEW_NEW
}

// findRequest returns the request if it exists for the caller.
func findRequest(tx *store.Tx, p *authz.Principal, id string) (*pb.ServiceRequest, error) {
	r, ok := requests.Get(tx, id)
	if !ok || !sightAt(tx, p, r.GetPropertyId()).sees(r) {
		return nil, fault.NotFound(requests.Name(), id)
	}
	return r, nil
}

// sightAt returns what the caller sees of the requests of one property.
func sightAt(tx *store.Tx, p *authz.Principal, property string) sight {
	if onTeam(tx, property, p.ID) {
		return sightOf(p, property)
	}
	return sightOf(p)
}
