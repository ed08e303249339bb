// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package trial

import (
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"unicode/utf8"

	"nexus.io/webhooks/internal/dispatcher/rest"
	"nexus.io/webhooks/internal/signing"
)

// maxSigned bounds the request of a verification: an event of 1 MiB, percent-encoded.
const maxSigned = 4 << 20

// signed is what to verify.
type signed struct {
	Payload   *string `json:"payload"`
	Timestamp *string `json:"timestamp"`
	Signature *string `json:"signature"`
	Secret    *string `json:"secret"`
}

// verdict is the answer.
type verdict struct {
	Valid     bool   `json:"valid"`
	Timestamp string `json:"timestamp"`
	Signature string `json:"signature_provided"`
	Reason    string `json:"reason"`
}

// verify serves POST /api/v1/verify-signature: what it needs comes in the query, as a form or as JSON.
func verify(w http.ResponseWriter, r *rest.Request) int {
	var s signed
	if p := s.read(w, r.Request); p != nil {
		return p.Write(w)
	}
	valid, reason := signing.Explain([]byte(*s.Secret), *s.Timestamp, []byte(*s.Payload), *s.Signature)
	return rest.JSON(w, http.StatusOK, verdict{valid, *s.Timestamp, *s.Signature, reason})
}

func (s *signed) read(w http.ResponseWriter, r *http.Request) *rest.Problem {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return malformed(r.URL.RawQuery)
	}
	media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case media == "application/x-www-form-urlencoded":
		form, p := readForm(w, r)
		if p != nil {
			return p
		}
		for name, given := range form {
			values[name] = append(values[name], given...)
		}
	case r.ContentLength != 0:
		if p := rest.Decode(w, r, maxSigned, s); p != nil {
			return p
		}
	}
	return s.take(values)
}

func readForm(w http.ResponseWriter, r *http.Request) (url.Values, *rest.Problem) {
	if p := rest.CheckEncoding(r.Header); p != nil {
		return nil, p
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxSigned))
	if err != nil {
		return nil, rest.Unreadable(err, maxSigned)
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, malformed(string(body))
	}
	return form, nil
}

func malformed(text string) *rest.Problem {
	wrong := rest.Malformed(text)
	return rest.New(http.StatusBadRequest, "").Field(wrong.Field, wrong.Message+" (curl --data-urlencode does)")
}

// take adds parameters, and names all that is missing, unknown or there twice.
func (s *signed) take(values url.Values) *rest.Problem {
	p := rest.New(http.StatusUnprocessableEntity, "")
	names := []string{"payload", "timestamp", "signature", "secret"}
	into := []**string{&s.Payload, &s.Timestamp, &s.Signature, &s.Secret}
	for i, name := range names {
		given := values[name]
		switch {
		case len(given) > 1 || (len(given) == 1 && *into[i] != nil):
			p.Field(name, "is there more than once: give it once")
		case len(given) == 1 && !utf8.ValidString(given[0]):
			p.Status, p.Title = http.StatusBadRequest, http.StatusText(http.StatusBadRequest)
			p.Field(name, "is not UTF-8")
		case len(given) == 1:
			*into[i] = &given[0]
		case *into[i] == nil:
			p.Field(name, "must be there, in the query, as a form or in JSON")
		}
		if value := *into[i]; name != "payload" && value != nil && len(*value) > maxSecret {
			p.Field(name, "must have at most 1,024 bytes, as every right one has")
		}
	}
	nameUnknown(p, values, names)
	if len(p.Errors) == 0 {
		return nil
	}
	return p
}

// nameUnknown adds the parameters that are not among the names, or the first few of them.
func nameUnknown(p *rest.Problem, values url.Values, names []string) {
	var unknown []string
	for name := range values {
		if !slices.Contains(names, name) {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	for _, name := range unknown[:min(len(unknown), len(names))] {
		p.Field(rest.Shown(name), "is not a parameter of this call, which takes payload, timestamp, signature, secret")
	}
}
