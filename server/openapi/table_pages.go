package openapi

// form is the media type of the forms of pages.
const form = "application/x-www-form-urlencoded"

var pages = []Operation{
	{Pattern: "GET /static/{name}", Tag: "pages", Summary: "Style sheet, script and icon", Type: "text/css"},
	{Pattern: "GET /{$}", Tag: "pages", Summary: "Home"},
	{Pattern: "GET /library", Tag: "pages", Summary: "Search and what is new", Query: []Param{{Name: "q", Text: "words to look for"}, {Name: "arch", Text: "an architecture"}, {Name: "signed", Text: "true"}}},
	{Pattern: "GET /library/{entity}", Tag: "pages", Summary: "An owner"},
	{Pattern: "GET /library/{entity}/{collection}", Tag: "pages", Summary: "A collection"},
	{Pattern: "GET /library/{entity}/{collection}/{container}", Tag: "pages", Summary: "A container, or an image of it"},
	{Pattern: "GET /new", Tag: "pages", Summary: "Form for a new collection or container"},
	{Pattern: "POST /new", Tag: "pages", Summary: "Make it", Media: form, Status: 303, Empty: true},
	{Pattern: "GET /edit/{path...}", Tag: "pages", Summary: "Form for descriptions and settings"},
	{Pattern: "POST /edit/{path...}", Tag: "pages", Summary: "Save them, or preview Markdown", Media: form, Status: 303, Empty: true, Also: []int{200}},
	{Pattern: "GET /delete/{path...}", Tag: "pages", Summary: "Question before something is deleted"},
	{Pattern: "POST /delete/{path...}", Tag: "pages", Summary: "Delete it", Media: form, Status: 303, Empty: true},
	{Pattern: "GET /members/{path...}", Tag: "pages", Summary: "Who may do what"},
	{Pattern: "POST /members/{path...}", Tag: "pages", Summary: "Give or take a role", Media: form, Status: 303, Empty: true},
	{Pattern: "GET /keystore", Tag: "pages", Summary: "Search of keys", Query: []Param{{Name: "q", Text: "name, address or fingerprint"}}},
	{Pattern: "GET /keystore/{fingerprint}", Tag: "pages", Summary: "A key"},
	{Pattern: "GET /admin", Tag: "pages", Summary: "Administration"},
	{Pattern: "POST /admin", Tag: "pages", Summary: "Do what a button says", Media: form, Status: 303, Empty: true, Also: []int{200}},
	{Pattern: "GET /admin/audit", Tag: "pages", Summary: "The audit record", Query: []Param{{Name: "field", Text: "actor, action or object"}, {Name: "value", Text: "what it is"}, {Name: "after", Text: "where the page before ended"}}},
	{Pattern: "GET /auth/login", Tag: "pages", Summary: "Log-in"},
	{Pattern: "POST /auth/login", Tag: "pages", Summary: "Log in", Media: form, Status: 303, Empty: true, Refuse: []int{401}},
	{Pattern: "POST /auth/logout", Tag: "pages", Summary: "Log out, here or everywhere", Media: form, Status: 303, Empty: true},
	{Pattern: "GET /auth/setup", Tag: "pages", Summary: "Form of a one-time link", Query: []Param{{Name: "code", Text: "of the link", Required: true}}, Refuse: []int{404}},
	{Pattern: "POST /auth/setup", Tag: "pages", Summary: "Set the password of a one-time link", Media: form, Status: 303, Empty: true, Refuse: []int{404}},
	{Pattern: "GET /auth/tokens", Tag: "pages", Summary: "Access tokens"},
	{Pattern: "POST /auth/tokens", Tag: "pages", Summary: "Make a token and show it, this once", Media: form},
	{Pattern: "POST /auth/tokens/revoke", Tag: "pages", Summary: "Revoke a token, or all", Media: form, Status: 303, Empty: true},
	{Pattern: "GET /auth/device", Tag: "pages", Summary: "Question whether a terminal may log in"},
	{Pattern: "POST /auth/device", Tag: "pages", Summary: "Agree or refuse", Media: form},
	{Pattern: "POST /auth/password", Tag: "pages", Summary: "Change the password", Media: form, Status: 303, Empty: true},
	{Pattern: "GET /auth/oidc/{provider}/start", Tag: "pages", Summary: "Go to a log-in provider", Status: 303, Empty: true},
	{Pattern: "GET /auth/oidc/{provider}/callback", Tag: "pages", Summary: "Come back from a log-in provider", Status: 303, Empty: true},
}
