package api

import "time"

// CurrentUser says who has a token. It is not enveloped.
type CurrentUser struct {
	Username string   `json:"username"`
	Email    string   `json:"email"`
	RealName string   `json:"realname"`
	Meta     UserMeta `json:"oidc_user_meta"`
}

// UserMeta holds a password for the registry, which works for some hours.
type UserMeta struct {
	Secret string `json:"secret"`
}

// TokenStatus says what a token is.
type TokenStatus struct {
	Username  string    `json:"username"`
	Email     string    `json:"email"`
	TokenName string    `json:"tokenName"`
	ExpiresAt time.Time `json:"expiresAt"`
	Scopes    []string  `json:"scopes"`
}

// Grant is a role of somebody at an entity, a collection or a container.
type Grant struct {
	Name    string    `json:"name"`
	Kind    string    `json:"kind"` // user, robot or group
	Role    string    `json:"role"` // reader, writer, maintainer or owner
	By      string    `json:"by"`
	At      time.Time `json:"at"`
	Expires time.Time `json:"expires,omitzero"`
}

// Introspection says to another service whose token it is.
type Introspection struct {
	Active    bool              `json:"active"`
	Subject   string            `json:"sub,omitempty"` // the id of the account
	Username  string            `json:"username,omitempty"`
	Kind      string            `json:"kind,omitempty"`
	Admin     bool              `json:"admin,omitempty"`
	TokenID   string            `json:"jti,omitempty"`
	Scope     string            `json:"scope,omitempty"` // separated by spaces
	ExpiresAt int64             `json:"exp,omitempty"`
	Groups    map[string]string `json:"groups,omitempty"` // names and roles
}

// DeviceCode begins a log-in from a terminal (RFC 8628).
type DeviceCode struct {
	DeviceCode      string `json:"device_code"`
	UserCode        string `json:"user_code"`
	VerificationURI string `json:"verification_uri"`
	Complete        string `json:"verification_uri_complete"`
	ExpiresIn       int    `json:"expires_in"` // seconds
	Interval        int    `json:"interval"`
}

// DeviceToken ends it, or tells in Error why not yet.
type DeviceToken struct {
	AccessToken string `json:"access_token,omitempty"`
	TokenType   string `json:"token_type,omitempty"`
	ExpiresIn   int    `json:"expires_in,omitempty"`
	Scope       string `json:"scope,omitempty"`
	Error       string `json:"error,omitempty"`
}
