package sim

import (
	"errors"
	"testing"

	"github.com/kiloraft/kiloraft/shard"
)

func TestContentVerdicts(t *testing.T) {
	m := newModel()
	one, gone, two, three := version{rev: 1, found: true, value: "1"}, version{rev: 3}, version{rev: 5, found: true, value: "2"}, version{rev: 7, found: true, value: "3"}
	later := version{rev: 9, found: true, value: "4"}
	for _, v := range []version{one, gone, two, three, later} {
		m.write("a", v)
	}
	m.write("b", one)
	m.trace("b", 4)
	m.trace("none", 4)
	trace := version{rev: 1, found: true, trace: 4}
	for _, c := range []struct {
		name  string
		held  []version
		floor shard.Revision
		want  string
	}{
		{"a trace", []version{one, trace}, 0, ""},
		{"what it names was dropped", []version{trace}, 4, "\"1\" of revision 1 is missing"},
		{"it is missing", []version{one}, 3, "the trace at revision 4"},
		{"it was dropped", []version{one}, 4, ""},
		{"another one", []version{one, {rev: 1, found: true, trace: 5}}, 0, "nobody wrote"},
		{"one of something else", []version{one, {rev: 2, found: true, trace: 4}}, 0, "nobody wrote"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var err error
			if why := m.differs("b", c.held, c.floor, 8); why != "" {
				err = errors.New(why)
			}
			verdict(t, err, c.want)
		})
	}
	if why := m.differs("none", []version{{trace: 4}}, 0, 8); why != "" || m.at("none", 8) != (version{}) || m.at("b", 8) != one {
		t.Errorf("%s; %v, %v", why, m.at("none", 8), m.at("b", 8))
	}
	for _, c := range []struct {
		name  string
		held  []version
		floor shard.Revision
		want  string
	}{
		{"everything", []version{one, gone, two, three}, 0, ""},
		{"nothing was dropped below the floor", []version{one, gone, two, three}, 6, ""},
		{"all was dropped below the floor", []version{two, three}, 6, ""},
		{"a tombstone was dropped with what it hides", []version{two, three}, 4, ""},
		{"a tombstone is left", []version{gone, two, three}, 4, ""},
		{"a tombstone went first", []version{one, two, three}, 4, "shows at the floor"},
		{"a tombstone went first, far below", []version{one, two, three}, 6, ""},
		{"the newest below the floor is missing", []version{three}, 6, "\"2\" of revision 5 is missing"},
		{"one above the floor is missing", []version{one, gone, three}, 4, "\"2\" of revision 5 is missing"},
		{"the newest is missing", []version{one, gone, two}, 0, "\"3\" of revision 7 is missing"},
		{"a tombstone above the floor is missing", []version{one, two, three}, 2, "tombstone of revision 3 is missing"},
		{"nothing is left", nil, 8, "\"3\" of revision 7 is missing"},
		{"one that was not applied yet", []version{one, gone, two, three, later}, 0, "nobody wrote"},
		{"another value", []version{{rev: 1, found: true, value: "x"}, gone, two, three}, 4, "nobody wrote"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var err error
			if why := m.differs("a", c.held, c.floor, 8); why != "" {
				err = errors.New(why)
			}
			verdict(t, err, c.want)
		})
	}
}
