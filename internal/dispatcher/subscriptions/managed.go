// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package subscriptions

import (
	"fmt"
	"net/http"
	"strings"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/internal/dispatcher/rest"
)

// manager tells which tool keeps an object as Git has it, with the mark that says so; both "" for none.
func manager(sub *v1alpha1.WebhookSubscription) (tool, mark string) {
	const (
		argo         = "argocd.argoproj.io/"
		instance     = "app.kubernetes.io/instance"
		helmRelease  = "meta.helm.sh/release-name"
		fluxKust     = "kustomize.toolkit.fluxcd.io/name"
		fluxHelm     = "helm.toolkit.fluxcd.io/name"
		argoTracking = argo + "tracking-id"
		argoInstance = argo + "instance"
	)
	labels, annotations := sub.Labels, sub.Annotations
	has := func(of map[string]string, name string) bool { _, has := of[name]; return has }
	switch {
	case has(annotations, argoTracking):
		return "Argo CD", "annotation " + argoTracking
	case has(labels, argoInstance):
		return "Argo CD", "label " + argoInstance
	case has(labels, instance) && hasPrefix(annotations, argo):
		return "Argo CD", "label " + instance + " beside annotations of " + strings.TrimSuffix(argo, "/")
	case has(labels, fluxKust):
		return "Flux", "label " + fluxKust
	case has(labels, fluxHelm):
		return "Flux", "label " + fluxHelm
	case labels[v1alpha1.LabelManagedBy] == "Helm" && has(annotations, helmRelease):
		return "Helm", "annotation " + helmRelease
	default:
		return "", ""
	}
}

func hasPrefix(annotations map[string]string, prefix string) bool {
	for name := range annotations {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// checkManaged refuses to change what a tool would change back.
func checkManaged(sub *v1alpha1.WebhookSubscription, force bool) *rest.Problem {
	tool, mark := manager(sub)
	if tool == "" || force {
		return nil
	}
	return rest.New(http.StatusConflict, fmt.Sprintf("%s manages the subscription %s/%s (%s) and would undo the change: "+
		"change it where %s takes it from, or add ?force=true to change it here all the same",
		tool, sub.Namespace, sub.Name, mark, tool))
}
