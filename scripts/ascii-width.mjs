// In the bundle instead of string-width: the columns that printable ASCII takes on a terminal.
export default (text) => text.length;
