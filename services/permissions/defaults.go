package permissions

import (
	"latchkey.dev/services/internal/catalog"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"
)

// roleSettings is what the built-in roles say about settings. What a role does not
// say is off, or the least there is.
//
//   - Prices are shown to all but SA: what a visit costs is not the technician's to tell.
//   - Moving and handing over appointments in the app is for those who are out; it is
//     given to each of them. OA and OW have it because nobody can give what he lacks.
//   - Searches and lists of proposals reach as far as the role's keys do.
//   - Nothing that takes away is on.
var roleSettings = map[string]*pb.UserSettings{
	"OA":  administrator(),
	"OW":  administrator(),
	"US":  {SeePricing: yes(), SearchScope: search(pb.SearchScope_SEARCH_SCOPE_ALL), ProposalScope: proposals(pb.ProposalScope_PROPOSAL_SCOPE_ALL)},
	"SW":  {SeePricing: yes(), SearchScope: search(pb.SearchScope_SEARCH_SCOPE_OWNED)},
	"SA":  {},
	"PM":  {SeePricing: yes(), SearchScope: search(pb.SearchScope_SEARCH_SCOPE_ALL)},
	"SP":  {SeePricing: yes()},
	"PM+": {SeePricing: yes(), SearchScope: search(pb.SearchScope_SEARCH_SCOPE_ALL)},
	"BA":  {SeePricing: yes()},
}

func administrator() *pb.UserSettings {
	return &pb.UserSettings{
		SeePricing: yes(), RescheduleAppointments: yes(), TransferAppointments: yes(), IncludeMemberOrgs: yes(),
		SearchScope:   search(pb.SearchScope_SEARCH_SCOPE_ALL),
		ProposalScope: proposals(pb.ProposalScope_PROPOSAL_SCOPE_ALL),
	}
}

func yes() *bool                                     { b := true; return &b }
func search(s pb.SearchScope) *pb.SearchScope        { return &s }
func proposals(s pb.ProposalScope) *pb.ProposalScope { return &s }

// baseline is a role, compiled.
type baseline struct {
	id       string
	brand    bool // it is one of the brand's
	keys     catalog.Set
	settings values
}

// builtIn is the built-in roles, by code.
var builtIn = compileBuiltIn()

func compileBuiltIn() map[string]baseline {
	all := map[string]baseline{}
	for _, r := range catalog.Roles() {
		all[r.Code] = baseline{id: r.Code, keys: r.Set(), settings: compileSettings(roleSettings[r.Code])}
	}
	return all
}

// builtInRoles returns the built-in roles as records, in the order of the catalog.
func builtInRoles() []*pb.Role {
	var list []*pb.Role
	for _, r := range catalog.Roles() {
		list = append(list, &pb.Role{
			Id: r.Code, Name: r.Name, Description: r.Description, Keys: r.Keys,
			Settings: roleSettings[r.Code], BuiltIn: true,
		})
	}
	return list
}
