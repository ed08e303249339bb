// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"unicode"

	"nexus.io/webhooks/internal/dispatcher/egress"
)

// maxError bounds an error text, in bytes.
const maxError = 256

// Describe says in words for the owner of the subscription what went wrong, "" for a success. It shows no secret.
func Describe(e Exchange) string { return describe(e, Classify(e).Reason) }

// describe says in words for the owner of the subscription what went wrong, "" for a success. Text of an error is
// taken only from before the request was sent: what an endpoint answers may repeat the request, its URL and its
// secret headers with it.
func describe(e Exchange, reason Reason) string {
	switch {
	case reason == ReasonNone:
		return ""
	case e.StatusCode != 0 && !isSuccess(e.StatusCode):
		return describeStatus(e.StatusCode, reason)
	default:
		return tidy(describeError(e, reason))
	}
}

func describeStatus(status int, reason Reason) string {
	text := strings.TrimSpace(fmt.Sprintf("the endpoint answered %d %s", status, http.StatusText(status)))
	if reason == ReasonRedirect {
		text += "; redirects are not followed"
	}
	return text
}

// sentences are for the reasons about which an error's details say nothing more that may be shown.
var sentences = map[Reason]string{
	ReasonInvalidResponse: "the answer is not valid HTTP, or its headers are too large",
	ReasonTruncated:       "the answer's body broke off",
	ReasonShutdown:        "the attempt was cut off because the dispatcher stops",
	ReasonLocalLimit:      "the dispatcher is out of descriptors, ports or memory",
	ReasonUnknown:         "the request could not be sent",
}

func describeError(e Exchange, reason Reason) string {
	if denied, ok := errors.AsType[*egress.DeniedError](e.Err); ok {
		return denied.Error()
	}
	if request, ok := errors.AsType[*RequestError](e.Err); ok {
		return request.Error()
	}
	if dns, ok := errors.AsType[*net.DNSError](e.Err); ok && reason == ReasonDNS {
		return "lookup of " + dns.Name + ": " + dns.Err
	}
	switch reason {
	case ReasonTimeout:
		return describeTimeout(e)
	case ReasonTLS:
		handshake, _ := errors.AsType[*egress.HandshakeError](e.Err)
		return handshake.Error()
	case ReasonRefused:
		return "the connection" + peer(e.Err) + " was refused"
	case ReasonUnreachable:
		return "there is no route" + peer(e.Err)
	case ReasonReset:
		return "the connection" + peer(e.Err) + " was closed before there was an answer"
	default:
		return sentences[reason]
	}
}

func describeTimeout(e Exchange) string {
	switch {
	case e.StatusCode != 0:
		return fmt.Sprintf("the answer's body did not end in time (%d ms)", e.Duration.Milliseconds())
	case e.Sent:
		return fmt.Sprintf("there was no answer in time (%d ms)", e.Duration.Milliseconds())
	default:
		return fmt.Sprintf("the request could not be sent in time (%d ms)", e.Duration.Milliseconds())
	}
}

// peer names the address that an error is about, if it is known.
func peer(err error) string {
	network, ok := errors.AsType[*net.OpError](err)
	if !ok || network.Addr == nil {
		return ""
	}
	return " to " + network.Addr.String()
}

// tidy makes text printable and cuts it to maxError bytes.
func tidy(text string) string {
	text = strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
	if len(text) <= maxError {
		return text
	}
	return strings.ToValidUTF8(text[:maxError], "")
}
