package naming

import (
	"context"
	"errors"
	"log/slog"
)

// refuse decides how to go on after the store refused content, and reports it.
func (k *keeper) refuse(put Endpoint, version int, err error) verdict {
	g := k.g
	v := g.intent.undo(version, put, err)
	// Calls end last, so that a caller that waited finds that all hooks were called.
	switch v {
	case final:
		k.report(err, true)
		g.intent.endAllCalls(err)
	case changeUndone:
		g.client.log.Warn("naming: change refused, the endpoint stays as it was", g.serviceAttr(), g.endpointAttr(), slog.Any("err", err))
		k.callOnChange()
		g.intent.endAllCalls(err)
	case markUndone:
		g.client.log.Debug("naming: draining mark refused", g.serviceAttr(), g.endpointAttr(), slog.Any("err", err))
		g.intent.endMarkCalls(version, err)
	}
	return v
}

// report sets the status, and logs and calls hooks. err and gone are the result of an
// attempt, as in intent.setResult.
func (k *keeper) report(err error, gone bool) {
	t := k.g.intent.setResult(err, gone)
	switch {
	case t.is.Registered && !t.was.Registered:
		k.reportRegistered(t)
	case err == ErrReplaced, !t.is.Registered && t.was.Registered:
		k.reportLost(t, err)
	case err != nil:
		k.reportFailed(t, err)
	}
	k.callOnChange()
	// Last, so that a caller that waited finds that all hooks were called.
	k.g.intent.endAppliedCalls()
}

func (k *keeper) reportRegistered(t transition) {
	g, log := k.g, k.g.client.log
	switch {
	case t.again:
		log.Info("naming: registered again", g.serviceAttr(), g.endpointAttr(), slog.Duration("after", t.is.Since.Sub(t.was.Since)))
	case t.was.Err != nil:
		log.Info("naming: registered", g.serviceAttr(), g.endpointAttr())
	}
	if f := g.client.hooks.Registered; f != nil {
		f(RegisteredInfo{Service: g.service, Endpoint: t.endpoint, Again: t.again})
	}
}

func (k *keeper) reportLost(t transition, err error) {
	g, log := k.g, k.g.client.log
	if err == ErrReplaced {
		log.Warn("naming: a newer registration of this process has the endpoint", g.serviceAttr(), g.endpointAttr())
	} else {
		log.Warn("naming: registration lost, will be made again", g.serviceAttr(), g.endpointAttr(), slog.Any("err", err))
	}
	if f := g.client.hooks.Lost; t.was.Registered && f != nil {
		f(LostInfo{Service: g.service, Endpoint: t.endpoint, Err: err})
	}
}

func (k *keeper) reportFailed(t transition, err error) {
	g := k.g
	level, text := slog.LevelDebug, "naming: registration failed, will be tried again"
	if t.was.Err == nil || t.final && !errors.Is(t.was.Err, ErrInvalid) {
		level = slog.LevelWarn
	}
	if t.final {
		text = "naming: registration refused, will not be tried again soon"
	}
	g.client.log.Log(context.Background(), level, text, g.serviceAttr(), g.endpointAttr(), slog.Any("err", err))
	if f := g.client.hooks.RegisterFailed; f != nil {
		f(RegisterFailedInfo{Service: g.service, Endpoint: t.endpoint, Err: err})
	}
}

// callOnChange calls OnChange if the status differs from the one that it was called
// with last.
func (k *keeper) callOnChange() {
	is, was := k.g.Status(), k.reported
	k.reported = is
	if k.g.opts.OnChange != nil && (is.Err != nil || was.Err != nil || is.Registered != was.Registered || is.Draining != was.Draining || is.MarkedByOther != was.MarkedByOther || is.Withheld != was.Withheld) {
		k.g.opts.OnChange(is)
	}
}

func (g *announcer) serviceAttr() slog.Attr { return slog.String("service", g.service) }

func (g *announcer) endpointAttr() slog.Attr { return slog.String("endpoint", g.id) }

// reportListed reports that the endpoint is in the registry, unless that was reported.
func (k *keeper) reportListed() {
	if !k.last.listed {
		k.last.listed = true
		k.report(nil, false)
	}
}

// setWithheld sets the status's Withheld. nil means that the endpoint may be used.
func (k *keeper) setWithheld(w *Withheld) {
	if !k.g.intent.setWithheld(w) {
		return
	}
	// At level Debug, because the watch has logged the same at level Info.
	k.g.client.log.Debug("naming: registration leaves its endpoint as it is", k.g.serviceAttr(), k.g.endpointAttr(), slog.Bool("withheld", w != nil))
	k.callOnChange()
}
