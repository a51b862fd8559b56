package benchmarks;

import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import org.apache.kafka.streams.processor.PunctuationType;
import org.apache.kafka.streams.processor.api.ContextualProcessor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;

/**
 * Gathers records and scores them in one call, when there are enough or the time is up.
 *
 * <p>What it has gathered counts as processed to Kafka Streams. It therefore asks for the commits itself, right after it
 * has forwarded all; the interval is set to never. A rebalance or a shutdown commits nevertheless, and would lose what
 * is gathered then: {@code close} must not forward. Who needs the guarantee gathers in a state store, and pays for its
 * changelog.
 */
final class ScoreBatches extends ContextualProcessor<byte[], byte[], byte[], byte[]> {
    private static final int BATCH = 256;
    private static final Duration WAIT = Duration.ofMillis(20);

    private final Json json = new Json();
    private final List<Record<byte[], byte[]>> gathered = new ArrayList<>(BATCH);
    private final List<String> ids = new ArrayList<>(BATCH);
    private final Model model;
    private final Duration commitInterval;

    ScoreBatches(OrtSession session, Duration commitInterval) throws OrtException {
        model = new Model(session, BATCH);
        this.commitInterval = commitInterval;
    }

    @Override
    public void init(ProcessorContext<byte[], byte[]> context) {
        super.init(context);
        context.schedule(WAIT, PunctuationType.WALL_CLOCK_TIME, now -> forward());
        context.schedule(commitInterval, PunctuationType.WALL_CLOCK_TIME, now -> {
            forward();
            context.commit();
        });
    }

    @Override
    public void process(Record<byte[], byte[]> event) {
        try {
            ids.add(json.read(event.value(), model.rows));
        } catch (IOException error) {
            throw new IllegalStateException(error);
        }
        gathered.add(event);
        if (gathered.size() == BATCH) {
            forward();
        }
    }

    private void forward() {
        if (gathered.isEmpty()) {
            return;
        }
        try {
            model.run();
            for (int row = 0; row < gathered.size(); row++) {
                byte[] output = json.write(ids.get(row), model.values, row, model.outputWidth);
                context().forward(gathered.get(row).withValue(output));
            }
        } catch (IOException | OrtException error) {
            throw new IllegalStateException(error);
        }
        gathered.clear();
        ids.clear();
    }
}
