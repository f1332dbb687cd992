package demo

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	invoicingpb "latchkey.dev/gen/go/latchkey/invoicing/v1"
	permissionspb "latchkey.dev/gen/go/latchkey/permissions/v1"
	schedulingpb "latchkey.dev/gen/go/latchkey/scheduling/v1"
	servicerequestpb "latchkey.dev/gen/go/latchkey/servicerequest/v1"
	typepb "latchkey.dev/gen/go/latchkey/type/v1"
)

// Person is somebody of the company.
type Person struct {
	Role     string // code of the built-in role
	Name     string
	Email    string
	Password string
	ID       string
	Token    string // of a session
}

// Company is what Fill made.
type Company struct {
	Name         string
	Organization string
	People       []*Person // one per role
	Properties   []*servicerequestpb.Property
	Units        []*servicerequestpb.Unit // of the first property
	Parts        []*invoicingpb.Part
	Agent        *schedulingpb.ServiceAgent // of the person with role SA

	conn grpc.ClientConnInterface
}

const (
	zone     = "Europe/Berlin"
	currency = "EUR"
)

// people of the company, the owner first.
var people = []Person{
	{Role: "OW", Name: "Olivia Brandt"}, {Role: "OA", Name: "Aaron Voss"}, {Role: "US", Name: "Uma Keller"},
	{Role: "PM", Name: "Petra Lindt"}, {Role: "SP", Name: "Sergio Paz"}, {Role: "PM+", Name: "Paula Moreau"},
	{Role: "SW", Name: "Simon Werth"}, {Role: "SA", Name: "Sara Adler"}, {Role: "BA", Name: "Bela Arany"},
}

var properties = []struct {
	name  string
	units []string
}{
	{"Harbour Lane 12", []string{"1A", "1B", "2A", "2B"}}, {"Mill Court", []string{"Ground floor", "Attic"}}, {"Orchard House", []string{"East", "West"}},
}

var parts = []struct {
	name, sku string
	price     int64 // in cents
}{
	{"Thermostat valve", "VLV-15", 48_17}, {"Sink trap", "TRP-40", 19_63}, {"Door closer", "DRC-3", 127_41},
}

// Person returns the one with a role.
func (c *Company) Person(role string) *Person {
	for _, p := range c.People {
		if p.Role == role {
			return p
		}
	}
	panic("demo: nobody has the role " + role)
}

// As returns a context that carries the session of the person with a role.
func (c *Company) As(ctx context.Context, role string) context.Context {
	return metadata.NewOutgoingContext(ctx, metadata.Pairs("authorization", "Bearer "+c.Person(role).Token))
}

// Fill makes the company in a suite that has no owner yet, over a connection as
// anybody has, with the one-time code of the first start.
func Fill(ctx context.Context, conn grpc.ClientConnInterface, code string) (*Company, error) {
	c := &Company{Name: "Harbour Lane Property Care", conn: conn}
	for _, p := range people {
		p.Email = strings.ToLower(strings.NewReplacer("+", "plus").Replace(p.Role)) + "@harbour-lane.example"
		p.Password = rand.Text()
		c.People = append(c.People, &p)
	}
	for _, step := range []func(context.Context) error{
		func(ctx context.Context) error { return c.claim(ctx, code) },
		c.addPeople, c.addProperties, c.addParts, c.addAgent,
	} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *Company) claim(ctx context.Context, code string) error {
	owner := c.People[0]
	resp, err := identitypb.NewBootstrapServiceClient(c.conn).ClaimOwnership(ctx, &identitypb.ClaimOwnershipRequest{
		Code: code, BrandName: "Harbour Lane", OrganizationName: c.Name, TimeZone: zone, CurrencyCode: currency,
		OwnerEmail: owner.Email, OwnerDisplayName: owner.Name, OwnerPassword: owner.Password,
	})
	if err != nil {
		return err
	}
	c.Organization, owner.ID = resp.GetOrganization().GetId(), resp.GetUser().GetId()
	return c.SignIn(ctx, owner)
}

// SignIn opens a session for a person, on the surface that fits the role.
func (c *Company) SignIn(ctx context.Context, p *Person) error {
	surface := identitypb.Surface_SURFACE_WEB
	switch p.Role {
	case "SP", "SA":
		surface = identitypb.Surface_SURFACE_APP
	}
	resp, err := identitypb.NewSessionServiceClient(c.conn).CreateSession(ctx, &identitypb.CreateSessionRequest{
		Email: p.Email, Password: p.Password, Surface: surface,
	})
	p.Token = resp.GetToken()
	return doing(err, "sign in as %s", p.Role)
}

func (c *Company) addPeople(ctx context.Context) error {
	owner := c.As(ctx, "OW")
	users, access := identitypb.NewUserServiceClient(c.conn), permissionspb.NewAccessServiceClient(c.conn)
	for _, p := range c.People[1:] {
		user, err := users.CreateUser(owner, &identitypb.CreateUserRequest{Email: p.Email, DisplayName: p.Name, InitialPassword: p.Password})
		if err != nil {
			return doing(err, "create the user for %s", p.Role)
		}
		p.ID = user.GetUser().GetId()
		if _, err := access.SetUserRole(owner, &permissionspb.SetUserRoleRequest{UserId: p.ID, RoleId: p.Role}); err != nil {
			return doing(err, "give the role %s", p.Role)
		}
		if p.Role == "BA" { // the role has no key that opens a surface
			_, err := access.SetOverride(owner, &permissionspb.SetOverrideRequest{
				UserId: p.ID, Key: "Web", Effect: permissionspb.Effect_EFFECT_GRANT, Reason: "works in the web application",
			})
			if err != nil {
				return doing(err, "let %s in", p.Role)
			}
		}
		if err := c.SignIn(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

func (c *Company) addProperties(ctx context.Context) error {
	owner := c.As(ctx, "OW")
	client := servicerequestpb.NewPropertyServiceClient(c.conn)
	for i, p := range properties {
		made, err := client.CreateProperty(owner, &servicerequestpb.CreatePropertyRequest{
			Name: p.name, TimeZone: zone,
			Address: &typepb.Address{Lines: []string{p.name}, Locality: "Hamburg", PostalCode: "20457", RegionCode: "DE"},
		})
		if err != nil {
			return doing(err, "create the property %s", p.name)
		}
		c.Properties = append(c.Properties, made.GetProperty())
		for _, name := range p.units {
			unit, err := client.CreateUnit(owner, &servicerequestpb.CreateUnitRequest{PropertyId: made.GetProperty().GetId(), Name: name})
			if err != nil {
				return doing(err, "create the unit %s", name)
			}
			if i == 0 {
				c.Units = append(c.Units, unit.GetUnit())
			}
		}
		if err := c.addTeam(owner, client, made.GetProperty()); err != nil {
			return err
		}
	}
	return nil
}

// addTeam puts the office and those who manage properties into a property's team.
func (c *Company) addTeam(ctx context.Context, client servicerequestpb.PropertyServiceClient, p *servicerequestpb.Property) error {
	for _, role := range []string{"OA", "US", "PM", "PM+"} {
		_, err := client.AddUserToProperty(ctx, &servicerequestpb.AddUserToPropertyRequest{PropertyId: p.GetId(), UserId: c.Person(role).ID})
		if err != nil {
			return doing(err, "add %s to the team of %s", role, p.GetName())
		}
	}
	return nil
}

func (c *Company) addParts(ctx context.Context) error {
	owner := c.As(ctx, "OW")
	client := invoicingpb.NewPartServiceClient(c.conn)
	for _, p := range parts {
		made, err := client.CreatePart(owner, &invoicingpb.CreatePartRequest{
			Name: p.name, Sku: p.sku, Category: "Stock",
			Price:          &typepb.Money{MinorUnits: p.price, CurrencyCode: currency},
			Cost:           &typepb.Money{MinorUnits: p.price * 3 / 5, CurrencyCode: currency},
			TaxBasisPoints: new(int32(1900)),
		})
		if err != nil {
			return doing(err, "create the part %s", p.name)
		}
		c.Parts = append(c.Parts, made.GetPart())
	}
	return nil
}

func (c *Company) addAgent(ctx context.Context) error {
	p := c.Person("SA")
	made, err := schedulingpb.NewServiceAgentServiceClient(c.conn).CreateServiceAgent(c.As(ctx, "OW"), &schedulingpb.CreateServiceAgentRequest{
		UserId: p.ID, DisplayName: p.Name, TimeZone: zone,
	})
	c.Agent = made.GetServiceAgent()
	return doing(err, "create the service agent")
}

func doing(err error, what string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf(what+": %w", append(args, err)...)
}
