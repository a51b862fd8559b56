package benchmarks;

import ch.randelshofer.fastdoubleparser.JavaFloatParser;
import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonGenerator;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.core.StreamReadFeature;
import com.fasterxml.jackson.core.StreamWriteFeature;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.FloatBuffer;

/** Reads events and writes outputs with Jackson's streaming API: one factory, and no tree in between. */
final class Json {
    private final JsonFactory factory = JsonFactory.builder()
            .enable(StreamReadFeature.USE_FAST_DOUBLE_PARSER)
            .enable(StreamWriteFeature.USE_FAST_DOUBLE_WRITER)
            .build();
    private final ByteArrayOutputStream out = new ByteArrayOutputStream(256);

    /** Appends the event's features, an array or a string with commas, to {@code features}; returns its id. */
    String read(byte[] event, FloatBuffer features) throws IOException {
        String id = null;
        try (JsonParser parser = factory.createParser(event)) {
            parser.nextToken();
            while (parser.nextToken() == JsonToken.FIELD_NAME) {
                String name = parser.currentName();
                JsonToken token = parser.nextToken();
                if (name.equals("features")) {
                    readFeatures(parser, token, features);
                } else if (name.equals("id")) {
                    id = parser.getText();
                } else {
                    parser.skipChildren();
                }
            }
        }
        return id;
    }

    private static void readFeatures(JsonParser parser, JsonToken token, FloatBuffer features) throws IOException {
        if (token == JsonToken.START_ARRAY) {
            while (parser.nextToken() != JsonToken.END_ARRAY) {
                features.put(parser.getFloatValue());
            }
            return;
        }
        char[] text = parser.getTextCharacters();
        int from = parser.getTextOffset();
        int end = from + parser.getTextLength();
        for (int at = from; at <= end; at++) {
            if (at == end || text[at] == ',') {
                features.put(JavaFloatParser.parseFloat(text, from, at - from));
                from = at + 1;
            }
        }
    }

    /** Returns an output: the value of one row is a number where the model has one output, else an array. */
    byte[] write(String id, FloatBuffer values, int row, int width) throws IOException {
        out.reset();
        try (JsonGenerator generator = factory.createGenerator(out)) {
            generator.writeStartObject();
            generator.writeStringField("event_id", id);
            generator.writeFieldName("value");
            if (width == 1) {
                generator.writeNumber(values.get(row));
            } else {
                generator.writeStartArray();
                for (int i = 0; i < width; i++) {
                    generator.writeNumber(values.get(row * width + i));
                }
                generator.writeEndArray();
            }
            generator.writeEndObject();
        }
        return out.toByteArray();
    }
}
