package main

import (
	"encoding/hex"
	"encoding/json"
	"log"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata"

	"github.com/ringsaturn/tzf"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/uber/h3-go/v4"
)

const (
	timeFormat      = "2006-01-02T15:04:05.000000Z"
	localTimeFormat = "2006-01-02T15:04:05.000000-07:00"
	since2010Us     = 1_262_304_000_000_000
	skewUs          = 300_000_000 // how far a clock may be ahead without a warning
)

// kind is what is known of an event type: see schemas/event_types.py.
type kind struct {
	name, category, severity string
	json                     []byte // the name
	headers                  []kgo.RecordHeader
}

var categories = map[string][2]string{
	"overspeed": {"driving", "warning"}, "fuel_fill": {"fuel", "info"}, "fuel_drain": {"fuel", "critical"},
	"geofence_enter": {"geofence", "info"}, "geofence_exit": {"geofence", "info"}, "geofence": {"geofence", "info"},
	"tampering": {"security", "critical"}, "power_cut": {"security", "critical"}, "sos": {"emergency", "critical"},
}

// kind normalises the name of an event type; beyond ASCII it does less than the stream stage.
func (r *reader) kind(text string) *kind {
	if known := r.kinds[text]; known != nil {
		return known
	}
	blank := func(letter rune) bool { return strings.ContainsRune(" \t\r\n-", letter) }
	name := strings.Join(strings.FieldsFunc(strings.ToLower(text), blank), "_")
	if name == "geofence_entry" {
		name = "geofence_enter"
	}
	found, known := categories[name]
	topic := "telematics.event." + name + ".v1"
	schema := "urn:eventpush:" + topic
	if !known {
		found, schema = [2]string{"other", "info"}, "urn:eventpush:telematics.event.other.v1"
	}
	made := &kind{name: name, category: found[0], severity: found[1], json: appendString(nil, name)}
	made.headers = []kgo.RecordHeader{
		{Key: "ce_specversion", Value: []byte("1.0")}, {Key: "ce_type", Value: []byte(topic)},
		{Key: "ce_source", Value: []byte("urn:eventpush")}, {Key: "ce_dataschema", Value: []byte(schema)},
		{Key: "content-type", Value: []byte("application/json")},
	}
	r.kinds[text] = made
	return made
}

// enricher adds what is known of a place, a time and a device.
type enricher struct {
	zones     tzf.F
	locations map[string]*time.Location
}

func newEnricher() *enricher {
	zones, err := tzf.NewDefaultFinder()
	if err != nil {
		log.Fatal(err)
	}
	return &enricher{zones, map[string]*time.Location{}}
}

// zone returns the time zone of a position.
func (n *enricher) zone(latitude, longitude float64) (string, *time.Location) {
	name := n.zones.GetTimezoneName(longitude, latitude)
	if name == "" {
		name = "UTC"
	}
	found := n.locations[name]
	if found == nil {
		var err error
		if found, err = time.LoadLocation(name); err != nil {
			found = time.UTC
		}
		n.locations[name] = found
	}
	return name, found
}

// encode returns the event as it stands on the topics; names and order are those of schemas/event.py.
func (n *enricher) encode(e event, id digest, raw *kgo.Record, receivedUs int64, receiptID string) []byte {
	latitude, longitude := e.content.latitude, e.content.longitude
	place := h3.NewLatLng(latitude, longitude)
	zoneName, zone := n.zone(latitude, longitude)
	device := time.UnixMicro(e.deviceUs)
	b := make([]byte, 0, 1024)
	b = append(append(b, `{"event_id":"`...), id.uuid()...)
	b = append(append(b, `","event":`...), e.kind.json...)
	b = strconv.AppendInt(append(b, `,"changes":`...), e.content.changes, 10)
	b = append(append(b, `,"imei":"`...), e.imei...)
	b = device.UTC().AppendFormat(append(b, `","device_time":"`...), timeFormat)
	b = time.UnixMicro(e.serverUs).UTC().AppendFormat(append(b, `","server_time":"`...), timeFormat)
	b = time.UnixMicro(receivedUs).UTC().AppendFormat(append(b, `","received_at":"`...), timeFormat)
	b = strconv.AppendFloat(append(b, `","latitude":`...), latitude, 'f', -1, 64)
	b = strconv.AppendFloat(append(b, `,"longitude":`...), longitude, 'f', -1, 64)
	b = append(append(b, `,"location":`...), e.location...)
	b = append(append(b, `,"geofence_name":`...), e.geofence...)
	b = append(append(b, `,"category":"`...), e.kind.category...)
	b = append(append(b, `","severity":"`...), e.kind.severity...)
	b = strconv.AppendUint(append(b, `","h3_r7":"`...), uint64(place.Cell(7)), 16)
	b = strconv.AppendUint(append(b, `","h3_r9":"`...), uint64(place.Cell(9)), 16)
	b = append(append(b, `","time_zone":"`...), zoneName...)
	b = device.In(zone).AppendFormat(append(b, `","device_time_local":"`...), localTimeFormat)
	b = strconv.AppendBool(append(b, `","imei_valid":`...), isCheckDigitRight(e.imei))
	b = append(append(b, `,"tac":"`...), e.imei[:8]...)
	b = strconv.AppendInt(append(b, `","device_delay_ms":`...), floorMs(e.serverUs-e.deviceUs), 10)
	b = strconv.AppendInt(append(b, `,"platform_delay_ms":`...), floorMs(receivedUs-e.serverUs), 10)
	b = append(b, `,"vehicle":null,"fleet":null,"driver":null,"event_as_sent":`...)
	if e.asSent == nil {
		b = append(b, "null"...)
	}
	b = append(append(b, e.asSent...), `,"warnings":[`...)
	b = append(b, strings.Join(warnings(e, receivedUs), ",")...)
	b = append(append(b, `],"extra":`...), e.extra...)
	b = appendString(append(b, `,"receipt_id":`...), receiptID)
	b = append(append(b, `,"sender":null,"raw":{"topic":"`...), raw.Topic...)
	b = strconv.AppendInt(append(b, `","partition":`...), int64(raw.Partition), 10)
	b = strconv.AppendInt(append(b, `,"offset":`...), raw.Offset, 10)
	return append(b, "}}"...)
}

// headers returns the event's headers (CloudEvents, see schemas/headers.py).
func (n *enricher) headers(e event, id digest) []kgo.RecordHeader {
	headers := make([]kgo.RecordHeader, 0, len(e.kind.headers)+3)
	return append(append(headers, e.kind.headers...),
		kgo.RecordHeader{Key: "ce_id", Value: []byte(id.uuid())},
		kgo.RecordHeader{Key: "ce_time", Value: []byte(time.UnixMicro(e.deviceUs).UTC().Format(timeFormat))},
		kgo.RecordHeader{Key: "ce_subject", Value: []byte(e.imei)})
}

// warnings returns the codes, as JSON, of what is suspicious about an event: see schemas/event_warnings.py.
func warnings(e event, receivedUs int64) (codes []string) {
	for _, warning := range [...]struct {
		code  string
		holds bool
	}{
		{`"position_zero"`, e.content.latitude == 0 && e.content.longitude == 0},
		{`"device_time_before_2010"`, e.deviceUs < since2010Us},
		{`"clock_ahead"`, max(e.serverUs, e.deviceUs) > receivedUs+skewUs},
		{`"imei_zero"`, e.imei == "000000000000000"},
		{`"imei_check_digit"`, !isCheckDigitRight(e.imei)},
		{`"location_missing"`, string(e.location) == "null"},
		{`"type_normalised"`, e.asSent != nil},
		{`"time_cut"`, e.timeCut},
		{`"duplicate_keys"`, e.duplicateKeys},
	} {
		if warning.holds {
			codes = append(codes, warning.code)
		}
	}
	return codes
}

// isCheckDigitRight checks the last digit of an IMEI (Luhn, 3GPP TS 23.003 annex B).
func isCheckDigitRight(imei string) bool {
	sum := 0
	for at, digit := range imei {
		value := int(digit-'0') * (1 + at%2)
		sum += value/10 + value%10
	}
	return sum%10 == 0
}

func floorMs(us int64) int64 {
	if us < 0 {
		us -= 999
	}
	return us / 1000
}

func (d digest) uuid() string {
	text := hex.EncodeToString(d[:])
	return text[:8] + "-" + text[8:12] + "-" + text[12:16] + "-" + text[16:20] + "-" + text[20:]
}

// appendString appends a text as JSON.
func appendString(b []byte, text string) []byte {
	for at := range len(text) {
		if text[at] < ' ' || text[at] == '"' || text[at] == '\\' {
			encoded, _ := json.Marshal(text) // a string never fails
			return append(b, encoded...)
		}
	}
	return append(append(append(b, '"'), text...), '"')
}
