// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package access

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"net/http"
	"strings"
	"time"

	"nexus.io/webhooks/internal/dispatcher/rest"
)

// maxToken bounds what is sent on for a review. The tokens of ServiceAccounts have about 1 KB.
const maxToken = 16 << 10

const how = "send the header Authorization: Bearer TOKEN, once, with the token of a ServiceAccount"

// bearer takes the token from a request's header.
func bearer(header http.Header) (string, *rest.Problem) {
	values := header["Authorization"]
	if len(values) == 0 {
		return "", rest.New(http.StatusUnauthorized, "this needs credentials: "+how)
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	token = strings.Trim(token, " ")
	if len(values) > 1 || !strings.EqualFold(scheme, "Bearer") || token == "" || len(token) > maxToken {
		return "", malformed()
	}
	return token, nil
}

func malformed() *rest.Problem {
	return rest.New(http.StatusUnauthorized, "the Authorization header is none that is understood here: "+how)
}

// tokenLike tells whether a text can be a bearer token, by RFC 6750. That takes longer than all else that is done for a
// token which is known, so it is asked of others only.
func tokenLike(text string) bool {
	for i := range len(text) {
		if !tokenCharacters[text[i]] {
			return false
		}
	}
	return true
}

var tokenCharacters = func() (is [256]bool) {
	for _, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/=:|" {
		is[c] = true // the last two are in older kinds of token, and in no other header's syntax
	}
	return is
}()

// expiry is the end that a token claims for itself. It is not checked here, the review did; it only shortens how long
// the review's answer counts. A token that claims none has none.
func expiry(token string) time.Time {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return forever
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return forever
	}
	var claims struct {
		Expires *float64 `json:"exp"`
	}
	if json.Unmarshal(text, &claims) != nil || claims.Expires == nil || *claims.Expires > math.MaxUint32 {
		return forever
	}
	return time.Unix(int64(max(0, *claims.Expires)), 0)
}
