package main

import (
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/valyala/fastjson"
	"golang.org/x/crypto/blake2b"
)

const leadUs = dayUs // how far a clock may be ahead

// event is a valid event, parsed. Times are in µs since the epoch; texts marked so are JSON.
type event struct {
	kind               *kind
	content            content
	imei               string
	deviceUs, serverUs int64
	geofenceName       string
	location           []byte // JSON
	geofence           []byte // JSON
	asSent             []byte // JSON, where it differs from the kind's name
	extra              []byte // JSON object
	timeCut            bool
	duplicateKeys      bool
}

// content is what may not differ between two deliveries of one event.
type content struct {
	changes             int64
	latitude, longitude float64
}

type violation struct {
	Code     string `json:"code"`
	Field    string `json:"field"`
	Found    string `json:"found"`
	Expected string `json:"expected"`
}

var fields = [...]string{
	"Event", "Changes", "Device_Time", "IMEI", "Server_Time", "Coordinates", "Location", "Geofence_Name",
}

// The fields by their place in fields; those from location on may be missing or null.
const (
	kindField = iota
	changes
	deviceTime
	imei
	serverTime
	coordinates
	location
	geofenceName
)

var lengthMax = [...]int{kindField: 128, coordinates: 64, location: 2048, geofenceName: 512}

// reader parses and validates payloads, one at a time.
type reader struct {
	parser     fastjson.Parser
	kinds      map[string]*kind
	values     [len(fields)]*fastjson.Value
	violations []violation
}

func newReader() *reader { return &reader{kinds: map[string]*kind{}} }

// read returns the event, or every rule that it breaks.
func (r *reader) read(raw []byte, receivedUs int64) (e event, violations []violation) {
	r.violations = nil
	clear(r.values[:])
	parsed, err := r.parser.ParseBytes(raw)
	if err != nil || !utf8.Valid(raw) {
		return e, []violation{{"not_json", "", "", "JSON in UTF-8"}}
	}
	object, err := parsed.Object()
	if err != nil {
		return e, []violation{{"not_object", "", "", "a JSON object"}}
	}
	r.visit(object, &e)
	if text, ok := r.text(kindField); ok {
		e.kind = r.kind(text)
		if e.kind.name == "" {
			r.broken("empty", kindField, "a string with visible characters")
		} else if e.kind.name != text {
			e.asSent = r.values[kindField].MarshalTo(nil)
		}
	}
	r.readChanges(&e)
	if e.imei, _ = r.text(imei); r.values[imei] != nil && !isIMEI(e.imei) && r.values[imei].Type() == fastjson.TypeString {
		r.broken("bad_format", imei, "a string of 15 digits")
	}
	r.readPosition(&e)
	e.location, _ = r.nullable(location)
	e.geofence, e.geofenceName = r.nullable(geofenceName)
	deviceUs, deviceCut, deviceOk := r.time(deviceTime)
	serverUs, serverCut, serverOk := r.time(serverTime)
	if deviceOk && deviceUs > receivedUs+leadUs {
		r.broken("in_future", deviceTime, "a time not after the arrival")
	}
	if serverOk && serverUs > receivedUs+leadUs {
		r.broken("in_future", serverTime, "a time not after the arrival")
	}
	if deviceOk && serverOk && deviceUs > serverUs {
		r.broken("device_time_after_server_time", deviceTime, "a time not after Server_Time")
	}
	e.deviceUs, e.serverUs, e.timeCut = deviceUs, serverUs, deviceCut || serverCut
	return e, r.violations
}

func (r *reader) visit(object *fastjson.Object, e *event) {
	e.extra = append(e.extra, '{')
	object.Visit(func(key []byte, value *fastjson.Value) {
		for at, name := range fields {
			if string(key) == name {
				e.duplicateKeys = e.duplicateKeys || r.values[at] != nil
				r.values[at] = value
				return
			}
		}
		if len(e.extra) > 1 {
			e.extra = append(e.extra, ',')
		}
		e.extra = value.MarshalTo(append(appendString(e.extra, string(key)), ':'))
	})
	e.extra = append(e.extra, '}')
}

func (r *reader) broken(code string, field int, expected string) {
	found := "nothing"
	if r.values[field] != nil {
		found = r.values[field].String()
	}
	r.violations = append(r.violations, violation{code, fields[field], found, expected})
}

// text returns a field's string, if it is one and keeps the rules on strings.
func (r *reader) text(field int) (string, bool) {
	value := r.values[field]
	if value == nil {
		r.broken("missing", field, "a string")
		return "", false
	}
	if value.Type() != fastjson.TypeString {
		r.broken("wrong_type", field, "a string")
		return "", false
	}
	text := string(value.GetStringBytes())
	if field < len(lengthMax) && lengthMax[field] > 0 && utf8.RuneCountInString(text) > lengthMax[field] {
		r.broken("too_long", field, "a shorter string")
		return "", false
	}
	if strings.ContainsRune(text, 0) || !utf8.ValidString(text) {
		r.broken("bad_characters", field, "a string without NUL and unpaired surrogates")
		return "", false
	}
	return text, true
}

// nullable returns a field as JSON and as text; a blank one is null.
func (r *reader) nullable(field int) ([]byte, string) {
	if value := r.values[field]; value != nil && value.Type() != fastjson.TypeNull {
		if text, ok := r.text(field); ok && (field != geofenceName || strings.TrimSpace(text) != "") {
			return appendString(nil, text), text
		}
	}
	return []byte("null"), ""
}

func (r *reader) readChanges(e *event) {
	value := r.values[changes]
	if value == nil {
		r.broken("missing", changes, "an integer")
	} else if number, err := value.Int64(); err != nil {
		r.broken("wrong_type", changes, "an integer")
	} else {
		e.content.changes = number
	}
}

func (r *reader) readPosition(e *event) {
	text, ok := r.text(coordinates)
	if !ok {
		return
	}
	first, second, _ := strings.Cut(text, ",")
	latitude, latitudeErr := strconv.ParseFloat(strings.TrimSpace(first), 64)
	longitude, longitudeErr := strconv.ParseFloat(strings.TrimSpace(second), 64)
	if latitudeErr != nil || longitudeErr != nil || strings.Trim(text, "0123456789., -") != "" {
		r.broken("bad_format", coordinates, `"latitude,longitude" in decimal degrees`)
	} else if math.Abs(latitude) > 90 || math.Abs(longitude) > 180 {
		r.broken("out_of_range", coordinates, "latitude from -90 to 90, longitude from -180 to 180")
	}
	e.content.latitude, e.content.longitude = latitude+0, longitude+0
}

// time returns a time in µs since the epoch, and whether digits beyond µs were cut.
func (r *reader) time(field int) (us int64, cut, ok bool) {
	text, ok := r.text(field)
	if !ok {
		return 0, false, false
	}
	parsed, err := time.Parse("2006-01-02T15:04:05Z0700", text)
	if err != nil {
		parsed, err = time.Parse(time.RFC3339, text)
	}
	_, offset := parsed.Zone()
	switch {
	case err != nil && strings.Contains(err.Error(), "out of range"):
		r.broken("out_of_range", field, "a time that exists")
	case err != nil || offset != 0:
		r.broken("bad_format", field, "YYYY-MM-DDTHH:MM:SS.SSSSSS+0000")
	case parsed.Unix() < 0:
		r.broken("out_of_range", field, "a time since 1970")
	default:
		return parsed.UnixMicro(), parsed.Nanosecond()%1000 != 0, true
	}
	return 0, false, false
}

func isIMEI(text string) bool {
	return len(text) == 15 && strings.Trim(text, "0123456789") == ""
}

type digest [16]byte

// identity is the digest that the stream stage computes, too: see schemas/identity.py.
func (e *event) identity() (id digest) {
	text := make([]byte, 0, 128)
	text = append(append(text, e.imei...), 0)
	text = append(strconv.AppendInt(text, e.deviceUs, 10), 0)
	text = append(append(text, e.kind.name...), 0)
	if e.geofenceName != "" {
		text = append(append(text, 1), e.geofenceName...)
	}
	hash, _ := blake2b.New(len(id), nil) // fails for other lengths only
	hash.Write(text)
	hash.Sum(id[:0])
	return id
}

func payloadDigest(raw []byte) (id digest) {
	hash, _ := blake2b.New(24, nil)
	hash.Write(raw)
	copy(id[:], hash.Sum(nil))
	return id
}
